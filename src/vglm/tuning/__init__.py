"""Fine-tuning: what trains (`methods`), the loop (`trainer`) and the folder of a run (`run_folder`)."""
