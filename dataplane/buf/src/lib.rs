//! One slab of aligned, huge-page buffers
