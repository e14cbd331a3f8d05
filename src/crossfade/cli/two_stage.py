"""``crossfade two-stage``: what re-ranking N candidates with the new model gains, costs, and which N to take."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from crossfade.cli.output import JsonFlag, print_json
from crossfade.cli.sides import LinksOption, NewOption, NewSpaceOption, OldOption, OldSpaceOption, open_side

NAME = "two-stage"


def command(
    adapter: Annotated[str, typer.Argument(help="A saved adapter: a folder or a hub id.")],
    old: OldOption,
    new: NewOption,
    candidates: Annotated[
        str, typer.Option("--candidates", "-n", help="Numbers of candidates to measure, with commas.")
    ] = "10,20,50,100,200,500",
    share: Annotated[
        float, typer.Option(help="Share of a full re-index that the recommended N reaches.", min=0.01, max=1.0)
    ] = 0.98,
    metric: Annotated[str, typer.Option(help="What it is a share of: R@1, R@5, R@10 or MRR.")] = "R@10",
    certain: Annotated[
        bool, typer.Option("--certain", help="Ask it of the lower end of the interval, and not of the mean alone.")
    ] = False,
    exponent: Annotated[float, typer.Option(help="Exponent of Zipf traffic.", min=0.01, max=10.0)] = 1.0,
    relevant: Annotated[
        str, typer.Option(help="What makes an answer right: auto, links, labels:COLUMN or qrels:FILE.")
    ] = "auto",
    links: LinksOption = None,
    old_space: OldSpaceOption = None,
    new_space: NewSpaceOption = None,
    all_queries: Annotated[
        bool,
        typer.Option("--all-queries", help="Also judge on items that the adapter was fitted on (warned of, loudly)."),
    ] = False,
    level: Annotated[float, typer.Option(help="Confidence level of the intervals.", min=0.5, max=0.999)] = 0.95,
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples.", min=100)] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap and of the order of popularity.")] = 0,
    json_: JsonFlag = False,
) -> None:
    """Measure two-stage retrieval and recommend a number of candidates.

    The adapter recalls N candidates from the old gallery, the new model re-ranks them. Both sides hold the items of the
    gallery, or of a sample of it. Shows quality and cost for each N beside one stage and a full re-index.
    """
    from crossfade.artifacts import from_pretrained
    from crossfade.judging import Judgement
    from crossfade.two_stage.judged import judge_two_stage
    from crossfade.two_stage.traffic import Traffic

    judgement = Judgement(relevant=relevant, all_queries=all_queries, level=level, resamples=resamples, seed=seed)
    result = judge_two_stage(
        from_pretrained(adapter),
        old=open_side(old, old_space, links, metadata=judgement.columns),
        new=open_side(new, new_space, links, metadata=judgement.columns),
        sizes=_numbers(candidates),
        judgement=judgement,
        traffic=Traffic(exponent=exponent),
    )
    recommendation = result.recommend(metric=metric, share=share, certain=certain)
    if json_:
        print_json({**result.to_dict(), "recommendation": asdict(recommendation)})
    else:
        from crossfade.two_stage.tables import print_two_stage

        print_two_stage(result, recommendation)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(
            f"numbers with commas between them, not {text!r}", param_hint="--candidates"
        ) from error
