//! What the decisions themselves cost, natively and without an edge: `cargo bench -p session-filter`.
//!
//! Before each bench the allocations of one turn are printed.

use std::hint::black_box;
use std::iter;

use criterion::{Criterion, criterion_group, criterion_main};
use session_filter::binding::Binding;
use session_filter::cookie;
use session_filter::path;
use session_filter::testing::CachedVisit;

/// A bench whose title says how often one turn allocates.
fn bench<T>(criterion: &mut Criterion, name: &str, mut turn: impl FnMut() -> T) {
    let counted = allocation_counter::measure(|| {
        black_box(turn());
    });
    println!("{name}: {} allocations, {} bytes", counted.count_total, counted.bytes_total);
    criterion.bench_function(name, |bencher| bencher.iter(&mut turn));
}

fn exchange(criterion: &mut Criterion) {
    let visit = CachedVisit::new();
    bench(criterion, "cached request", || visit.make());
}

fn token(criterion: &mut Criterion) {
    let CachedVisit { config, token, .. } = CachedVisit::new();
    let signed = config.keyring.sign(&token, &Binding::NONE);
    bench(criterion, "token sign", || config.keyring.sign(black_box(&token), &Binding::NONE));
    bench(criterion, "token verify", || config.keyring.verify(black_box(signed.as_bytes()), &Binding::NONE));
    let forged = "A".repeat(signed.len());
    bench(criterion, "token refuse", || config.keyring.verify(black_box(forged.as_bytes()), &Binding::NONE));
}

fn parsing(criterion: &mut Criterion) {
    let line = format!("theme=dark; __Host-session={}; lang=en", "A".repeat(58));
    bench(criterion, "cookie extract", || {
        cookie::extract(iter::once(black_box(line.as_bytes())), b"__Host-session", None).remaining
    });
    let plain = b"/shop/cart?page=2";
    bench(criterion, "path fold, plain", || path::Readings::of(black_box(plain)));
    let hostile = b"/x/..;v=1//%2561ccount%2fsettings/./%2e%2e/settings";
    bench(criterion, "path fold, hostile", || path::Readings::of(black_box(hostile)));
}

criterion_group!(hot_path, exchange, token, parsing);
criterion_main!(hot_path);
