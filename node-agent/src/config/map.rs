//! Small tables whose keys the operator makes up: headers and variables.

use std::str::FromStr;

use toml::de::DeValue;

use super::{
    report::{Report, Span},
    table::{At, Value, article},
};

/// Pairs, each written `name = value`. Names and values that are wrong are left
/// out.
#[derive(Clone, Debug)]
pub struct Map<K, V>(pub Vec<(At<K>, At<V>)>);

impl<K: FromStr<Err = String>, V: Value> Value for Map<K, V> {
    fn kind() -> String {
        format!("{{ NAME = {} }}", V::kind())
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        let Some(table) = value.as_table() else {
            let title = format!("expected names with values, found {}", article(value));
            report
                .error(span, title)
                .help("write them in braces: { NAME = \"value\" }");
            return None;
        };
        let mut pairs = Vec::new();
        for (written, value) in table {
            let span = written.span();
            let name = written.get_ref().parse();
            let name = name.map_err(|title: String| {
                report
                    .error(&span, title)
                    .help("for example { NAME = \"value\" }");
            });
            let at = value.span();
            let value = V::read(value.get_ref(), &at, report);
            if let (Ok(name), Some(value)) = (name, value) {
                pairs.push((At { value: name, span }, At { value, span: at }));
            }
        }
        Some(Self(pairs))
    }
}
