"""Meterline: usage metering and entitlements for people who run AI and API products."""
