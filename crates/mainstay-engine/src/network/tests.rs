//! Real traffic through real kernels' tables, between namespaces that a test makes for itself.

mod bandwidth;
mod dual;
mod firewall;
mod life;
mod machine;
mod peers;
mod repair;
mod traffic;
