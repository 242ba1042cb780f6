"""Moving an embedded data folder into a deployment on Kafka, ClickHouse and PostgreSQL.

In stages, each of which can be cut short and begun again (`move.py`):

1. `source.py` brings the folder to rest: nothing is left in its log, nothing half-done.
2. Events, then keys, go from store to store in chunks (`aggregator.moving`).
3. `tables.py` copies all tables of the database in one transaction, which also says up to where the
   moved events reach; from then on they are events like others.
4. The ordinary back-fill makes the series of the meters from the events.
5. `verify.py` compares the two sides, and only then may servers start on the deployment.
"""
