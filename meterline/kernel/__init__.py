"""The pure core that every service shares; standard library only."""
