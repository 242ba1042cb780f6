"""What model calls cost: pure, and Decimal only.

`PriceBook` finds the price of a model at a date, `cost` applies it to a `TokenUsage`, and
`extract` reads that usage from the bodies that providers answer. Whatever cannot be priced is
`Unpriced` with a reason; it is never 0, and never priced as another model.
"""
