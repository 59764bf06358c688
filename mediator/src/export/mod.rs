//! Acts on the export, by descriptor, and only with a permit.
