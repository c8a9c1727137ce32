//! The OpenAPI document, made from the routes themselves.

use utoipa::openapi::{
    ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder, PathItem, PathsBuilder,
    security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
};

use super::{
    problem::{FieldFault, ProblemBody},
    route::{Access, Route},
};

/// The document of these routes.
#[must_use]
pub fn document(routes: Vec<Route>) -> OpenApi {
    let mut paths = PathsBuilder::new();
    let mut components = ComponentsBuilder::new();
    for (name, schema) in [schema::<ProblemBody<'_>>(), schema::<FieldFault>()] {
        components = components.schema(name, schema);
    }
    for Route { template, method, access, mut operation, schemas, .. } in routes {
        operation.security = match access {
            Access::Public => None,
            Access::App => Some(vec![requirement("app")]),
            Access::Admin => Some(vec![requirement("admin")]),
            Access::Onboarding => Some(vec![SecurityRequirement::default(), requirement("admin")]),
        };
        let method = match method.as_str() {
            "POST" => utoipa::openapi::HttpMethod::Post,
            "PATCH" => utoipa::openapi::HttpMethod::Patch,
            "DELETE" => utoipa::openapi::HttpMethod::Delete,
            _ => utoipa::openapi::HttpMethod::Get,
        };
        paths = paths.path(template, PathItem::new(method, operation));
        components = components.schemas_from_iter(schemas);
    }
    for (name, description) in
        [("app", "The token that onboarding gave to the app."), ("admin", "The server's admin token.")]
    {
        let mut scheme = Http::new(HttpAuthScheme::Bearer);
        scheme.description = Some(description.to_owned());
        components = components.security_scheme(name, SecurityScheme::Http(scheme));
    }
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Tidings")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some("Change data capture for Git. Errors are RFC 9457 problems."))
                .build(),
        )
        .paths(paths.build())
        .components(Some(components.build()))
        .build()
}

fn requirement(name: &str) -> SecurityRequirement {
    SecurityRequirement::new(name, Vec::<String>::new())
}

fn schema<T: utoipa::ToSchema>() -> (String, utoipa::openapi::RefOr<utoipa::openapi::schema::Schema>) {
    (T::name().into_owned(), T::schema())
}
