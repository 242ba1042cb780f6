"""TLS and SASL, on a broker that asks for them."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from meterline.eventlog.kafka_options import KafkaOptions
from meterline.eventlog.kafka_topic import open_topic
from meterline.kernel.errors import UnavailableError
from tests.support.events import batch_of, ids_of, kafka_options, opened_kafka_log
from tests.support.kafka import KafkaBroker, require_class_path
from tests.support.parts import require_program
from tests.support.ports import free_port

NOW = datetime(2026, 11, 20, tzinfo=UTC)
_PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaOptions]:
    """Options for a broker with TLS and passwords."""
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        [require_program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes"]
        + ["-days", "2", "-subj", "/CN=localhost", "-keyout", str(key), "-out", str(certificate)]
        + ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"],
        check=True,
        capture_output=True,
    )
    store = folder / "store.pem"
    store.write_text(key.read_text() + certificate.read_text())
    address = f"127.0.0.1:{free_port()}"
    settings = {
        "listeners": f"SASL_SSL://{address}",
        "advertised.listeners": f"SASL_SSL://{address}",
        "listener.security.protocol.map": "SASL_SSL:SASL_SSL",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl_ssl.plain.sasl.jaas.config": f'{_PLAIN} user_meterline="pass word";',
        "connection.failed.authentication.delay.ms": "0",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(store),
    }
    with KafkaBroker(require_class_path(), settings=settings) as broker:
        yield replace(
            kafka_options(broker, request_timeout_seconds=3.0),
            bootstrap=address,
            security_protocol="SASL_SSL",
            sasl_username="meterline",
            sasl_password="pass word",  # noqa: S106
            ssl_ca_file=str(certificate),
        )


@pytest.fixture(autouse=True)
async def farewell() -> AsyncIterator[None]:
    """aiokafka does not wait for the end of its first connection, which takes TLS a moment."""
    yield
    loop: Any = asyncio.get_running_loop()
    async with asyncio.timeout(30):
        # One is its own, for calls from threads.
        while len(loop._selector.get_map()) > 1:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_tls_and_password(secured: KafkaOptions) -> None:
    async with opened_kafka_log(secured) as log:
        await log.append("default", NOW, 2, batch_of([1, 2]))
        assert ids_of(await log.read(0, 0, 10)) == ["event-1", "event-2"]
        await log.check()
        await log.writer.check()


async def test_wrong_credentials_and_certificates_are_refused(secured: KafkaOptions) -> None:
    for changed in (
        replace(secured, sasl_password="wrong"),  # noqa: S106
        replace(secured, ssl_ca_file=None),
    ):
        with pytest.raises(UnavailableError):
            await open_topic(changed)


async def test_the_password_is_not_shown(secured: KafkaOptions) -> None:
    assert "pass word" not in repr(secured) + str(secured)
