"""The paper's tables beside what a store holds: which results belong to which row, and what is said of them."""
