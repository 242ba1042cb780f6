"""`meterline prices`, a server's own prices, and `reprice`, what others would change."""

import json
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from meterline.kernel.errors import ValidationError
from meterline.kernel.quantity import format_number
from meterline.server.cli.http import Api
from meterline.server.cli.options import DEFAULT_URL, ApiKey, Url
from meterline.server.cli.output import print_table

if TYPE_CHECKING:
    from meterline.pricing.book import Override
    from meterline.pricing.importers import Imported

app = typer.Typer(
    no_args_is_help=True,
    help="List a server's own prices of models, and import price files of others.",
)
_PAGE = 1_000


@app.command("list")
def list_prices(url: Url = DEFAULT_URL, api_key: ApiKey = None) -> None:
    """Show the own prices."""
    with Api(url, api_key) as api:
        items = api.json("GET", "/api/v1/prices")["items"]
    table = Table("model", "provider", "from", "until", "rates", "note", box=None)
    for one in items:
        rates = ", ".join(f"{name} {_rate(rate)}" for name, rate in one["rates"].items())
        span = (one.get("validFrom", ""), one.get("validUntil", ""))
        table.add_row(one["model"], one.get("provider", ""), *span, rates, one.get("note", ""))
    if items:
        print_table(table)
    else:
        typer.echo("no own prices: the catalogue's are used")


@app.command("import")
def import_prices(
    file: Annotated[Path, typer.Argument(help="The price file.")],
    file_format: Annotated[str, typer.Option("--format", help="litellm or models.dev.")],
    provider: Annotated[str | None, typer.Option(help="Only of this provider.")] = None,
    model: Annotated[str, typer.Option(help="Only models like this; * is anything.")] = "*",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing.")] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Keep the prices of a file as own prices, which win over the catalogue.

    Running it again with a newer file changes what it made before, and nothing else.
    """
    wanted: dict[tuple[str | None, str], Imported] = {}
    for one in _read_prices(file, file_format):
        if provider in (None, one.provider) and fnmatchcase(one.model, model):
            # Some are there twice, with and without their provider in front.
            wanted.setdefault((_named(one.provider), one.model), one)
    note = f"imported: {file_format}"
    counts = {"added": 0, "changed": 0, "unchanged": 0}
    with Api(url, api_key) as api:
        known = {
            (one.get("provider"), one["model"]): one
            for one in api.json("GET", "/api/v1/prices")["items"]
            if one.get("note") == note
        }
        for key, one in wanted.items():
            counts[_keep(api, one, note, known.get(key), dry_run)] += 1
    typer.echo(", ".join(f"{count} {what}" for what, count in counts.items()))
    ignored = sorted({cost for one in wanted.values() for cost in one.ignored})
    if ignored:
        typer.echo(f"ignored, because there is no unit for them: {', '.join(ignored)}")


def reprice_command(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Report what would change. There is no other way.")
    ] = False,
    since: Annotated[str | None, typer.Option("--from", help="Calls at or after.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="Calls before.")] = None,
    prices: Annotated[
        Path | None, typer.Option(help="JSON file with own prices, in place of the server's.")
    ] = None,
    catalogue_only: Annotated[
        bool, typer.Option("--catalogue-only", help="Without any own prices.")
    ] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Show what other prices would make of recorded calls; nothing is changed.

    The catalogue is that of the `genai-prices` installed where this runs, so a newer one can be
    tried before the server gets it.
    """
    from entitlements.usage_records.reprice import UNREADABLE, reprice, together
    from meterline.pricing.book import PriceBook
    from meterline.pricing.catalogue import GenaiCatalogue

    if not dry_run:
        raise ValidationError("reprice reports, and corrects nothing: give --dry-run")
    catalogue = GenaiCatalogue()
    with Api(url, api_key) as api:
        own: Sequence[Override] = ()
        if prices is not None:
            own = _overrides(_decoded(prices))
        elif not catalogue_only:
            text = api.call("GET", "/api/v1/prices").text
            own = _overrides(json.loads(text, parse_float=str))
        found = reprice(_records(api, since, until), PriceBook(catalogue, own))
    table = Table("model", "provider", "priced", "calls", "changed", "before", "after", box=None)
    table.add_column("difference", justify="right")
    for (provider, model, before, after), one in sorted(found.items()):
        states = before if before == after else f"{before} → {after}"
        figures = (str(one.calls), str(one.changed), *map(_usd, (one.before_usd, one.after_usd)))
        table.add_row(model or "(unknown)", provider, states, *figures, _usd(one.difference))
    typer.echo(f"prices: {catalogue.version}, and {len(own)} own")
    if found:
        print_table(table)
    whole = together(found.values())
    typer.echo(
        f"{whole.calls} calls, {whole.changed} would change: {_usd(whole.before_usd)} →"
        f" {_usd(whole.after_usd)} US dollars, difference {_usd(whole.difference)}"
    )
    unreadable = together(one for (*_, after), one in found.items() if after == UNREADABLE)
    if unreadable.calls:
        typer.echo(f"{unreadable.calls} of them could not be read, and stay as they are")


def _records(api: Api, since: str | None, until: str | None) -> Iterator[Mapping[str, Any]]:
    given = {"from": since, "to": until, "limit": str(_PAGE)}
    params = [(name, text) for name, text in given.items() if text is not None]
    cursor: str | None = None
    while True:
        more = [] if cursor is None else [("cursor", cursor)]
        page = api.json("GET", "/api/v1/usage", params=[*params, *more])
        yield from page["items"]
        cursor = page["nextCursor"]
        if cursor is None:
            return


def _overrides(body: Any) -> "Sequence[Override]":
    from pydantic import ValidationError as PydanticError

    from entitlements.usage_records.api.price_wire import PriceBody
    from entitlements.usage_records.options import UsageLimits
    from meterline.pricing.book import Override

    items = body.get("items") if isinstance(body, dict) else body
    if not isinstance(items, list):
        raise ValidationError("prices are a JSON array, or an object with `items`")
    found = []
    kept = ("id", "createdAt", "updatedAt")
    for index, item in enumerate(items):
        try:
            told = {name: value for name, value in dict(item).items() if name not in kept}
            spec = PriceBody.model_validate(told).spec(UsageLimits())
        except (PydanticError, ValueError, TypeError) as error:
            raise ValidationError(f"price {index}: {error}") from None
        price_id = item.get("id", f"price-{index}")
        span = (spec.valid_from, spec.valid_until)
        found.append(Override(price_id, spec.model, spec.rates, spec.provider, *span))
    return found


def _read_prices(file: Path, file_format: str) -> "Sequence[Imported]":
    from meterline.pricing.importers import FORMATS

    read = FORMATS.get(file_format)
    if read is None:
        raise ValidationError(f"unknown format {file_format}: there are {', '.join(FORMATS)}")
    found = list(read(_decoded(file, number=Decimal)))
    if not found:
        raise ValidationError(f"{file} has no price in the format {file_format}")
    return found


def _decoded(file: Path, number: Any = str) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"), parse_float=number)
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ValidationError(f"{file}: {error}") from None


def _keep(
    api: Api, one: "Imported", note: str, known: Mapping[str, Any] | None, dry_run: bool
) -> str:
    from entitlements.usage_records.shape import camel

    rates: dict[str, Any] = {}
    for key, rate in one.rates.items():
        rates[camel(key)] = {"price": format_number(rate.price), "per": rate.per}
        if rate.tiers:
            rates[camel(key)]["tiers"] = [
                {"above": tier.above, "price": format_number(tier.price)} for tier in rate.tiers
            ]
    body = {"model": one.model, "provider": one.provider, "rates": rates, "note": note}
    if known is not None and _same(known["rates"], rates):
        return "unchanged"
    if not dry_run and known is None:
        api.call("POST", "/api/v1/prices", body=body)
    elif not dry_run and known is not None:
        api.call("PUT", f"/api/v1/prices/{known['id']}", body=body)
    return "added" if known is None else "changed"


def _named(provider: str) -> str:
    """A provider by the name that the server gives it."""
    from meterline.pricing.catalogue import GenaiCatalogue

    return GenaiCatalogue().provider_id(provider) or provider.strip().lower()


def _same(kept: Any, wanted: Any) -> bool:
    """Whether two rates are equal, whose prices may be numbers or texts."""
    if isinstance(kept, dict) and isinstance(wanted, dict):
        return kept.keys() == wanted.keys() and all(_same(kept[n], wanted[n]) for n in kept)
    if isinstance(kept, list) and isinstance(wanted, list):
        return len(kept) == len(wanted) and all(map(_same, kept, wanted))
    return Decimal(kept) == Decimal(wanted)


def _rate(rate: Mapping[str, Any]) -> str:
    return f"{format_number(Decimal(rate['price']))}/{rate['per']}"


def _usd(amount: Decimal) -> str:
    return format_number(amount)
