"""Training and evaluation beside each other, killed again and again; whether anything is lost."""
