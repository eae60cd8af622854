"""The paper's claims, each a comparison that could fail, on the embedded benchmark."""
