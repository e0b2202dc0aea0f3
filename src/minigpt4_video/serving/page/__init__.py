"""A page for people, on the server's own interface: plain files for a browser, and what they need besides that.

The browser asks as any client does (`/v1/files`, `/v1/chat/completions`), so limits, keys and expiry are the server's.
Nothing is fetched from elsewhere: a content policy allows this server alone.
"""

from minigpt4_video.serving.page.routes import add_page

__all__ = ["add_page"]
