/// Is told how far something is that takes long, to show it to a person. `()` shows nothing.
pub trait Observer {
    /// Something of so many steps begins.
    fn begins(&self, _what: &'static str, _steps: usize) {}

    /// A step of it is done.
    fn advances(&self) {}

    /// How it stands, in a few words beside how far it is.
    fn shows(&self, _state: &str) {}

    /// All of it is done.
    fn ends(&self) {}

    /// What a person should know, as a sentence.
    fn notes(&self, _sentence: &str) {}
}

impl Observer for () {}
