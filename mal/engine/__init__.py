"""What any stage of any method runs on: the graph and its store, claims, records, processes, progress, tracking."""
