"""Usage records over a running server, where they touch what other parts keep."""

from tests.support.server import MeterlineServer


def test_a_transaction_is_of_its_own_account(server: MeterlineServer) -> None:
    with server.client() as client:
        for user in ("owner", "thief"):
            granted = client.post(f"/api/v1/subjects/{user}/credits", json={"amount": 100_000})
            assert granted.status_code == 201, granted.text
        start = client.post(
            "/api/v1/usage-transactions", json={"userId": "owner", "model": "gpt-4o"}
        ).json()
        record = {
            "context": "customer",
            "transactionId": start["transactionId"],
            "modelId": "gpt-4o",
            "inputTokens": 5,
        }
        refused = client.post("/api/v1/usage", json={**record, "accountId": "thief"})
        assert refused.status_code == 400
        (fault,) = refused.json()["extensions"]["validationErrors"]
        assert fault["where"] == "transactionId" and "another account" in fault["reason"]
        made = client.post("/api/v1/usage", json={**record, "accountId": "owner"})
        assert made.status_code == 201, made.text
        unknown = client.post(
            "/api/v1/usage", json={**record, "accountId": "owner", "transactionId": "none"}
        )
        assert unknown.status_code == 400


def test_a_poisoned_answer_fails_alone(server: MeterlineServer) -> None:
    body = (
        '{"key": "k", "response": {"object": "chat.completion", "id": "x\\ud800",'
        ' "model": "gpt-4o", "usage": {"prompt_tokens": 1, "completion_tokens": 1}}}'
    )
    with server.client() as client:
        answer = client.post(
            "/api/v1/track", content=body, headers={"content-type": "application/json"}
        )
        assert answer.status_code == 400
        assert answer.headers["content-type"] == "application/problem+json"
        assert "response.id" in answer.text
