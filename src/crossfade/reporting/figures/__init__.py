"""Each figure of a report: a pure function from plain values to an SVG string, one file a figure."""

from crossfade.reporting.figures.cosines import cosine_histogram
from crossfade.reporting.figures.curves import recall_curves
from crossfade.reporting.figures.dumbbell import dumbbell
from crossfade.reporting.figures.gap import gap_bar
from crossfade.reporting.figures.picture import space_picture

__all__ = ["cosine_histogram", "dumbbell", "gap_bar", "recall_curves", "space_picture"]
