"""Chat forms as data. They are saved with the processor, so a folder says how its model wants to be asked.

A video part becomes one `<VideoHere>` and a picture one `<Img><ImageHere></Img>`; the processor then puts the frames,
with their tags and subtitles, in the place of `<VideoHere>`. The text in front is a system message, when there is one.
"""

from __future__ import annotations

_PARTS = (
    "{%- macro parts(content) -%}"
    "{%- if content is string -%}{{ content }}{%- else -%}"
    "{%- for part in content -%}"
    "{%- if part.type == 'video' -%}{{ '<VideoHere>\\n' }}"
    "{%- elif part.type == 'image' -%}{{ '<Img><ImageHere></Img> ' }}"
    "{%- elif part.type == 'text' -%}{{ part.text }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{%- endmacro -%}"
)


def _instruction(before: str, opening: str, closing: str, after_answer: str) -> str:
    """The `[INST]` form. A system message stands in front of the first question, inside its brackets."""
    return (
        _PARTS + "{%- set ns = namespace(system='') -%}" + before + "{%- for message in messages -%}"
        "{%- if message.role == 'system' -%}{%- set ns.system = parts(message.content) + '\\n\\n' -%}"
        "{%- elif message.role == 'user' -%}"
        "{{ '" + opening + "' + ns.system + parts(message.content) + '" + closing + "' }}{%- set ns.system = '' -%}"
        "{%- elif message.role == 'assistant' -%}{{ parts(message.content)" + after_answer + " }}{%- endif -%}"
        "{%- endfor -%}"
    )


TRAINED = _instruction("", "[INST] ", "[/INST]", " + eos_token if not loop.last else parts(message.content)")
"""What the released checkpoints were trained on: one beginning-of-sequence token (the tokenizer's), no space at the
end.
"""

DEMO = _instruction("{{ bos_token }}", "[INST] ", " [/INST]", "")
"""What the original's demo and command line sent: a second beginning-of-sequence token, and a space before
`[/INST]`.
"""

BENCHMARK = _instruction("{{ bos_token }}", "[INST]  ", " [/INST]", "")
"""What the original's benchmark runs sent: as the demo, with two spaces after `[INST]`."""

CHATML = (
    _PARTS + "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message.role + '\\n' + parts(message.content) }}"
    "{%- if not (loop.last and message.role == 'assistant') -%}{{ '<|im_end|>\\n' }}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)
"""Qwen's form."""

INSTRUCTION_TEMPLATES = {"default": TRAINED, "demo": DEMO, "benchmark": BENCHMARK}
"""For Llama-2 and Mistral."""

CHATML_TEMPLATES = {"default": CHATML}
"""For Qwen."""

CONTROL_LITERALS = ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<|im_start|>", "<|im_end|>")
"""What a template writes and a question or subtitle must not."""

ANSWER_OPENINGS = ("[/INST]", "<|im_start|>assistant\n")
"""What stands before an answer in these templates, and in no answer."""
