//! The fields of a request's body, described once: [`body!`] makes the schema of the API's document and the
//! list of names from one struct, and [`super::fields::Fields`] reads by that list. If a field is read but
//! not described, or described but not read, the first test that sends such a body fails.

/// A body, or an object within one.
pub(crate) trait Body {
    /// The names of its fields, as they are described.
    const FIELDS: &'static [&'static str];
    /// The fields that Docora does not have, on a route that exists in Docora too; there unknown fields are
    /// ignored unless the body uses one of these.
    const OURS: &'static [&'static str] = &[];
}

/// Describes a body. If the route exists in Docora, the fields that Docora lacks are listed in a block of
/// their own.
macro_rules! body {
    (
        $(#[$meta:meta])*
        $visibility:vis struct $name:ident {
            $( $(#[$field_meta:meta])* $field:ident: $kind:ty, )*
        }
        $( beyond docora {
            $( $(#[$our_meta:meta])* $our_field:ident: $our_kind:ty, )*
        } )?
    ) => {
        $(#[$meta])*
        #[derive(utoipa::ToSchema)]
        #[expect(dead_code, reason = "it describes the body, whose reader is held to these names")]
        $visibility struct $name {
            $( $(#[$field_meta])* $field: $kind, )*
            $( $( $(#[$our_meta])* $our_field: $our_kind, )* )?
        }

        impl $crate::http::bodies::body::Body for $name {
            const FIELDS: &'static [&'static str] =
                &[$( stringify!($field), )* $( $( stringify!($our_field), )* )?];
            const OURS: &'static [&'static str] = &[$( $( stringify!($our_field), )* )?];
        }
    };
}
pub(crate) use body;
