"""`langevin report RUN...`: runs side by side, in one HTML file that needs no network."""
