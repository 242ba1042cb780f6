"""Usage of models, priced: records, tracked answers, their summaries, and one's own prices.

Every record is one event of the type `meterline.usage`; nothing else is kept of it, so a listing
is a listing of events and a summary is a query of meters. What is kept here are a namespace's
prices, and for a while the names of records, so that one that is sent again is the same event.
"""
