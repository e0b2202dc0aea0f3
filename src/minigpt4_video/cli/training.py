"""The verb that trains."""

import os
import sys
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from minigpt4_video.cli.output import quiet, say, say_json
from minigpt4_video.errors import RecipeError


def train(
    recipe: Annotated[
        str | None,
        Argument(metavar="RECIPE", help="A .toml file, or the name of one that --list shows.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None, Option(metavar="FOLDER", help="Where it goes [default: runs/RECIPE].", show_default=False)
    ] = None,
    resume: Annotated[bool, Option("--resume", help="Go on where an interrupted run stopped.")] = False,
    set_: Annotated[
        list[str] | None, Option("--set", metavar="KEY=VALUE", help="Change a value of the recipe; may be repeated.")
    ] = None,
    variant: Annotated[
        str | None, Option(metavar="NAME", help="One of the recipe's variants, such as full.", show_default=False)
    ] = None,
    plan: Annotated[bool, Option("--plan", help="Only say what it will take; needs no weights.")] = False,
    gpu: Annotated[str, Option(help="With --plan: the GPU that hours are counted for.")] = "h200",
    devices: Annotated[int, Option(help="With --plan: how many of them.")] = 1,
    utilisation: Annotated[float, Option(help="With --plan: the share of its peak that is reached.")] = 0.4,
    json_: Annotated[bool, Option("--json", help="With --plan: one JSON object.")] = False,
    list_: Annotated[bool, Option("--list", help="Show the recipes that come with the package.")] = False,
) -> None:
    """Train one stage from a recipe.

    \b
    minigpt4-video train --list
    minigpt4-video train llama2-7b/stage3 --plan --gpu a100
    minigpt4-video train tiny/stage3 --output runs/stage3 --set training.max_steps=20
    """
    from minigpt4_video.training.recipe import read_recipe, shipped

    if list_:
        for name in shipped():
            say(name)
        return
    if recipe is None:
        raise RecipeError("no recipe was named; give a .toml file, or one of those that `train --list` shows")
    overrides = dict(_override(text) for text in set_ or [])
    place = output or Path("runs") / (recipe if recipe in shipped() else Path(recipe).stem)
    quiet()
    if plan:
        from minigpt4_video.training.costs import plan_run

        settled = read_recipe(recipe, overrides, variant)
        told = plan_run(settled, place, gpu=gpu, devices=devices, utilisation=utilisation)
        if json_:
            say_json({**vars(told), "memory_gib": told.memory_gib})
        else:
            for line in told.lines():
                say(line)
        return
    if missing := [name for name in ("accelerate", "peft") if find_spec(name) is None]:
        raise RecipeError(f'training needs {missing[0]}; pip install "minigpt4-video[train]"')
    from minigpt4_video.training.train import train as run

    with redirect_stdout(sys.stderr):  # libraries print
        made = run(recipe, place, resume=resume, overrides=overrides, variant=variant)
    if int(os.environ.get("RANK", "0")) == 0:  # of several processes one tells
        say(str(made))


def _override(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f'--set {text} is not KEY=VALUE; write for example "--set training.max_steps=20"')
    return key.strip(), value.strip()
