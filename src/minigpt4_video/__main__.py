"""`python -m minigpt4_video VERB` is the same as `minigpt4-video VERB`."""

import sys

from minigpt4_video.cli import main

sys.exit(main())
