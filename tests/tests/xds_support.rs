//! `docs/xds-support.md` is what the code says.

use mesh_xds::resource::{Support, fields};
use std::{env, fs, path::Path};

#[test]
fn the_page_about_xds_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs/xds-support.md");
    let page = fields::page(Support::of(mesh_client::FEATURES));
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == page,
        "docs/xds-support.md is out of date: UPDATE_DOCS=1 cargo test -p mesh-tests xds_support"
    );
}
