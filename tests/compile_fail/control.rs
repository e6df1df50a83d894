//! The means by which `compile_fail.rs` tells that a type lacks a trait tells it of one that has it.

trait Known<T> {
    fn ask() {}
}
struct Anyway;
struct Has;
impl<T: ?Sized> Known<Anyway> for T {}
impl<T: ?Sized + Clone> Known<Has> for T {}

pub fn control() {
    <tokenwal::App as Known<_>>::ask(); //~ E0283
    <tokenwal::Secret as Known<_>>::ask();
}
