"""Entitlements of a server: their services over its meters, and their endpoints."""

from dataclasses import dataclass
from typing import Self

from fastapi import APIRouter

from entitlements.api import entitlements as entitlements_api
from entitlements.api import features as features_api
from entitlements.api import grants as grants_api
from entitlements.api import values as values_api
from entitlements.services.entitlements import EntitlementService
from entitlements.services.features import FeatureService
from entitlements.services.grants import GrantService
from entitlements.services.means import Means
from entitlements.services.values import ValueService


@dataclass(frozen=True, slots=True)
class EntitlementServices:
    """The services of entitlements."""

    features: FeatureService
    entitlements: EntitlementService
    grants: GrantService
    values: ValueService

    @classmethod
    def over(cls, means: Means) -> Self:
        """The services that share these means."""
        return cls(
            FeatureService(means),
            EntitlementService(means),
            GrantService(means),
            ValueService(means),
        )

    def routers(self) -> list[APIRouter]:
        """Their endpoints. They come before those of subjects, whose paths match all of theirs;
        and those of values before those of entitlements, for the same reason."""
        return [
            features_api.router(self.features),
            values_api.router(self.values),
            grants_api.router(self.grants),
            entitlements_api.router(self.entitlements),
        ]
