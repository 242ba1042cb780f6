"""Credits: the balance of the feature `credits`, its history, and what models cost of it."""
