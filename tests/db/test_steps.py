from meterline.db.steps import Each, Write, _for_postgresql, insert, update


def test_changes_are_one_statement_on_postgresql() -> None:
    added = insert("a", {"x": "text", "y": "bigint"}, "ON CONFLICT DO NOTHING")
    moved = update("b", {"z": "text"}, {"k": "text"})
    nothing = Each(update("c", {"z": "text"}, {"k": "text"}), [])
    text, columns = _for_postgresql(
        Write([Each(added, [("p", 1), ("q", 2)]), nothing, Each(moved, [("new", "key")])])
    )
    assert text == (
        "WITH change_0 AS (INSERT INTO a (x, y)"
        " SELECT * FROM unnest($1::text[], $2::bigint[]) ON CONFLICT DO NOTHING)"
        " UPDATE b AS t SET z = w.z FROM unnest($3::text[], $4::text[]) AS w (z, k)"
        " WHERE t.k = w.k"
    )
    assert columns == [["p", "q"], [1, 2], ["new"], ["key"]]


def test_changes_without_rows_are_none() -> None:
    assert _for_postgresql(Write([Each(insert("a", {"x": "text"}), [])])) == ("", [])


def test_sqlite_takes_row_by_row() -> None:
    assert insert("a", {"x": "text", "y": "text"})["sqlite"] == "INSERT INTO a (x, y) VALUES (?, ?)"
    moved = update("b", {"x": "text", "y": "text"}, {"k": "text"})
    assert moved["sqlite"] == "UPDATE b SET x = ?, y = ? WHERE k = ?"
