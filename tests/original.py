"""Files in the layout of the original's, in miniature."""

import torch

WIDTH = 32


def eva(blocks=3, width=WIDTH):
    """A tower in EVA-CLIP's layout: 28 px, 7 px patches, half precision, one block too many and a norm."""
    torch.manual_seed(2)
    state = {
        "cls_token": torch.randn(1, 1, width),
        "pos_embed": torch.randn(1, 17, width),
        "patch_embed.proj.weight": torch.randn(width, 3, 7, 7),
        "patch_embed.proj.bias": torch.randn(width),
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
    }
    for block in range(blocks):
        for name, shape in {
            "norm1.weight": (width,),
            "norm1.bias": (width,),
            "attn.q_bias": (width,),
            "attn.v_bias": (width,),
            "attn.qkv.weight": (3 * width, width),
            "attn.proj.weight": (width, width),
            "attn.proj.bias": (width,),
            "norm2.weight": (width,),
            "norm2.bias": (width,),
            "mlp.fc1.weight": (2 * width, width),
            "mlp.fc1.bias": (2 * width,),
            "mlp.fc2.weight": (width, 2 * width),
            "mlp.fc2.bias": (width,),
        }.items():
            state[f"blocks.{block}.{name}"] = torch.randn(shape) * 0.2
    return {name: tensor.half() for name, tensor in state.items()}
