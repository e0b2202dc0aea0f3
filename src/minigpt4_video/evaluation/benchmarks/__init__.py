"""The benchmarks by name: each a function from its public files to items."""

from minigpt4_video.evaluation import world
from minigpt4_video.evaluation.benchmarks import open_ended
from minigpt4_video.evaluation.items import Benchmark

BENCHMARKS: dict[str, Benchmark] = {
    "world": Benchmark(
        world.read,
        "open",
        "questions about this package's own world, in English and Chinese; the only one that needs no download",
        "none, or a folder that `world render` wrote",
        "made by this package",
        make=world.make,
    ),
    "msvd-qa": Benchmark(
        open_ended.msvd,
        "open",
        "13,157 short questions about 520 YouTube clips of 10 seconds",
        "test_qa.json (and youtube_mapping.txt beside it), or test_q.json with test_a.json",
        "annotations: github.com/xudejing/video-question-answering; videos: MSVD (YouTubeClips)",
    ),
}
