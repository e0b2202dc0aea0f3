"""What a model is asked when its task is to describe: pools drawn from in training, and one request for each style."""

from collections.abc import Sequence
from random import Random
from typing import Literal, cast

from minigpt4_video.errors import UserError

Language = Literal["en", "zh"]
Style = Literal["brief", "detailed", "tags"]

VIDEO_CAPTION: dict[Language, tuple[str, ...]] = {
    "en": (
        "What does this video show?",
        "Tell me what happens in this video.",
        "Put the content of this video into words.",
        "Give an account of the video.",
        "Write a caption for this video.",
        "What can be seen in this clip?",
        "Say in your own words what goes on in the clip.",
        "Someone has not seen this video. Tell them what is in it.",
        "Sum up what the video shows.",
        "How would you describe this clip?",
        "Report what takes place in the video.",
        "What is this video about?",
        "What happens in the video?",
        "What happens?",
        "What is in the video?",
        "What do you see?",
        "What is going on here?",
        "Describe the video.",
        "Describe this video.",
        "Caption this.",
    ),
    "zh": (
        "这段视频展示了什么？",
        "请说说视频里发生了什么。",
        "用文字讲述这段视频的内容。",
        "请为这段视频写一句说明。",
        "在这个片段里能看到什么？",
        "用你自己的话说明片段中的情况。",
        "有人没看过这段视频，请告诉他里面有什么。",
        "请概括视频所展示的内容。",
        "你会怎样描述这个片段？",
        "请报告视频中出现的事情。",
        "这段视频讲的是什么？",
        "请把视频的画面说给我听。",
        "视频里发生了什么？",
        "发生了什么？",
        "视频里有什么？",
        "你看到了什么？",
        "这里在发生什么？",
        "描述这段视频。",
        "请描述这个视频。",
        "给视频写个说明。",
    ),
}

IMAGE_CAPTION: dict[Language, tuple[str, ...]] = {
    "en": (
        "What does this picture show?",
        "Write a caption for this picture.",
        "Tell me what is in the picture.",
        "Put this picture into words.",
        "What can be seen here?",
        "Say briefly what the picture contains.",
        "How would you describe this picture?",
        "Give a short account of the picture.",
        "What is this a picture of?",
        "Name what you see in the picture.",
        "Someone cannot see this picture. Tell them what it shows.",
        "Sum up the picture in a sentence.",
    ),
    "zh": (
        "这张图片展示了什么？",
        "请为这张图片写一句说明。",
        "告诉我图片里有什么。",
        "用文字表达这张图片。",
        "这里能看到什么？",
        "请简短说明图片的内容。",
        "你会怎样描述这张图片？",
        "请简要讲讲这张图片。",
        "这是一张什么样的图片？",
        "说出你在图片中看到的东西。",
        "有人看不到这张图片，请告诉他画面是什么。",
        "用一句话概括这张图片。",
    ),
}

VIDEO_DETAIL: dict[Language, tuple[str, ...]] = {
    "en": (
        "Describe this video in detail.",
        "Tell everything this video shows, in the order in which it happens.",
        "Give a full account of the video: who and what is seen, how it looks, and what it does.",
        "Write a long description of this clip.",
        "Go through the video from beginning to end and say what there is to see.",
        "Leave nothing out: what does this video show?",
        "Describe the scene, the people and things in it, and all that happens.",
        "Explain at length what goes on in this video.",
    ),
    "zh": (
        "请详细描述这段视频。",
        "请按先后顺序讲述这段视频的全部内容。",
        "请完整叙述视频：有哪些人和物，外观如何，做了什么。",
        "请为这个片段写一段较长的描述。",
        "请从头到尾说说视频里能看到的东西。",
        "请毫无遗漏地说明这段视频展示了什么。",
        "请描述场景、其中的人和物以及发生的一切。",
        "请详尽说明这段视频中的情况。",
    ),
}

VIDEO_SPEECH: dict[Language, tuple[str, ...]] = {
    "en": (
        "What is being said in this clip?",
        "Write down what might be said here.",
        "Which words go with this clip?",
        "What could the speaker be telling in this video?",
        "Give the words that are spoken while this is shown.",
        "What does one hear in this clip?",
    ),
    "zh": (
        "这个片段里在说什么？",
        "请写出这里可能说的话。",
        "这个片段配的是什么话？",
        "视频里的人可能在讲什么？",
        "请给出画面出现时所说的话。",
        "在这个片段里能听到什么话？",
    ),
}

CAPTION_STYLE: dict[Language, dict[Style, str]] = {
    "en": {
        "brief": "Say in one sentence what this video shows.",
        "detailed": "Tell everything this video shows, in the order in which it happens: who and what is seen, how it"
        " looks, what it does, and what is said.",
        "tags": "List keywords for this video, with commas between them.",
    },
    "zh": {
        "brief": "用一句话说明这段视频的内容。",
        "detailed": "请按先后顺序详细讲述这段视频：有哪些人和物、外观如何、做了什么、说了什么。",
        "tags": "请列出这段视频的关键词，用逗号分隔。",
    },
}


def caption_request(style: str, language: str) -> str:
    """The request for a caption. Raises UserError for a style or language that there is none for."""
    known = cast(dict[str, dict[str, str]], CAPTION_STYLE)
    if language not in known:
        raise UserError(f'there is no caption language "{language}"; choose {", ".join(known)}')
    if style not in known[language]:
        raise UserError(f'there is no caption style "{style}"; choose {", ".join(known[language])}')
    return known[language][style]


def draw(pool: Sequence[str], random: Random) -> str:
    """One instruction of a pool; the same `random` state draws the same one."""
    return random.choice(pool)
