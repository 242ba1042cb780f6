"""How many spans are read at once. Pure."""

from collections.abc import Iterator, Sequence

from meterline.kernel.periods import Period


def batches(spans: Sequence[Period], most_overlapping: int) -> Sequence[Sequence[int]]:
    """The spans, by their places, in as few batches as are quick to read.

    Spans that do not overlap are quick, however many there are: an event is in one of them. Where
    they overlap, an event may be in every one of a batch, so those have at most so many.
    """
    layers: list[list[int]] = []
    for place, span in enumerate(spans):
        for layer in layers:
            if spans[layer[-1]].end <= span.start:
                layer.append(place)
                break
        else:
            layers.append([place])
        if len(layers) > most_overlapping:
            break
    else:
        if len(layers) * most_overlapping <= len(spans) or len(layers) == 1:
            return layers
    return list(_chunks(len(spans), most_overlapping))


def _chunks(count: int, size: int) -> Iterator[Sequence[int]]:
    return (range(start, min(start + size, count)) for start in range(0, count, size))
