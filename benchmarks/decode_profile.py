"""Where the time of one decoded token goes: which kernels take it, and how near each comes to the copy bandwidth.

python benchmarks/decode_profile.py --output benchmarks/results/decode_profile.json

On the model of benchmarks/inference.py, one thread, in seconds of the processor. Each kind of matrix is read by the
product of one token, kept row by row as files have it and column by column as `load_model` lays it out; then attention
of one token over the prefix, and what is left of a token when those are taken off: norms, rotations, the library's and
our own Python. The matrices of all layers are read in turn, so that none is found in a cache.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

import torch
from torch.nn.functional import linear, scaled_dot_product_attention

import minigpt4_video as mv
from inference import MID, QUESTION, make_model, make_video, processor


def quickest(way: Callable[[], Any], rounds: int = 9) -> float:
    took = []
    for _ in range(rounds):
        begun = process_time()
        way()
        took.append(process_time() - begun)
    return min(took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="write the profile as JSON")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as aside:
        make_model(Path(aside) / "model", MID)
        make_video(Path(aside) / "video.mp4", MID.seconds)
        chat = mv.VideoChat.from_pretrained(Path(aside) / "model", device="cpu")
        video = chat.open(Path(aside) / "video.mp4")
        video.ask("Where?", max_new_tokens=1)
        told = profile(chat, video)
    print(json.dumps(told, indent=2))
    if given.output:
        given.output.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


@torch.inference_mode()  # type: ignore[untyped-decorator]
def profile(chat: mv.VideoChat, video: Any) -> dict[str, Any]:
    source = torch.randn(32 * 2**20)
    target = torch.empty_like(source)
    copied = 2 * source.nbytes / quickest(lambda: target.copy_(source))

    def told(count: int, seconds: float) -> dict[str, float]:
        share = count / seconds / copied
        return {"MB": round(count / 1e6, 1), "ms": round(seconds * 1e3, 2), "share_of_copy": round(share, 2)}

    layers = chat.model.model.language_model.layers
    kinds = {
        "queries, keys, values, output": [
            getattr(layer.self_attn, name).weight
            for layer in layers
            for name in ("q_proj", "k_proj", "v_proj", "o_proj")
        ],
        "gate, up": [getattr(layer.mlp, name).weight for layer in layers for name in ("gate_proj", "up_proj")],
        "down": [layer.mlp.down_proj.weight for layer in layers],
        "output layer": [chat.model.lm_head.weight],
    }
    products = {}
    counted = 0
    spent = 0.0
    for kind, weights in kinds.items():
        one = torch.randn(1, 1, weights[0].shape[1])
        read = sum(weight.nbytes for weight in weights)
        ways = {"as loaded": weights, "by rows": [weight.contiguous() for weight in weights]}
        took = {}
        for way, held in ways.items():
            took[way] = quickest(lambda held=held, one=one: [linear(one, weight) for weight in held])  # type: ignore[misc]
        products[kind] = {way: told(read, seconds) for way, seconds in took.items()}
        counted += read
        spent += took["as loaded"]
    prefix = video._prefix.board.held(0)
    query = torch.randn(1, prefix[0][0].shape[0], 1, prefix[0][0].shape[2])
    kept = sum(keys.nbytes + values.nbytes for keys, values in prefix)
    attended = quickest(
        lambda: [scaled_dot_product_attention(query, keys[None], values[None]) for keys, values in prefix]
    )
    stream = video.stream(QUESTION, max_new_tokens=64)
    stream._words._round.step()
    token = quickest(stream._words._round.step, rounds=48)
    stream.close()
    return {
        "machine": f"{processor()}, 1 thread, torch {torch.__version__}, seconds of the processor",
        "copy_GB_s": round(copied / 1e9, 1),
        "products": products,
        "attention": told(kept, attended),
        "rest_ms": round((token - spent - attended) * 1e3, 2),
        "token": told(counted + kept, token),
    }


if __name__ == "__main__":
    main()
