"""Notifications: rules watch entitlements, events are written when they fire, webhooks tell them.

The way of a notification: a change of a balance asks for a check in its own transaction
(`stores/checks`), the evaluator reads the value and decides (`firing`, pure), what fires is written
together with its deliveries (`stores/outbox`), and the courier sends them until they arrive.
"""
