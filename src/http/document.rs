//! The OpenAPI document, made from the routes themselves, and what the server sends to apps.

pub mod docs;
mod payloads;
mod webhooks;

use http::Method;
use utoipa::openapi::{
    ComponentsBuilder, Content, HttpMethod, InfoBuilder, ObjectBuilder, OpenApi, OpenApiBuilder, PathItem,
    PathsBuilder, Ref, RefOr, Required, Response, ResponseBuilder, Type,
    extensions::ExtensionsBuilder,
    path::{Parameter, ParameterBuilder, ParameterIn},
    security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
    server::ServerBuilder,
};

pub(super) use payloads::PulledPayload;

use crate::http::{
    bodies::problem::{FieldFault, ProblemBody},
    door::{
        idempotency::{HEADER, KEY_CHARACTERS_MAX},
        route::{Access, Route},
    },
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
            Access::Public | Access::Hook(_) => None,
            Access::App => Some(vec![requirement("app")]),
            Access::Viewer | Access::Operator | Access::Admin => Some(vec![requirement("staff")]),
            Access::Onboarding => Some(vec![SecurityRequirement::default(), requirement("staff")]),
        };
        if let Some(role) = access.role() {
            let role = ExtensionsBuilder::new().add("x-role", role.as_str()).build();
            operation.extensions.get_or_insert_default().merge(role);
        }
        if method == Method::POST && !matches!(access, Access::Hook(_)) {
            operation.parameters.get_or_insert_default().push(RefOr::T(idempotency_key()));
        }
        operation.operation_id = Some(operation_id(&method, &template));
        for (statuses, description) in
            [("4XX", "The request cannot be served."), ("5XX", "The server cannot.")]
        {
            operation.responses.responses.insert(statuses.to_owned(), RefOr::T(problem(description)));
        }
        let method = match method {
            Method::POST => HttpMethod::Post,
            Method::PATCH => HttpMethod::Patch,
            Method::DELETE => HttpMethod::Delete,
            _ => HttpMethod::Get,
        };
        paths = paths.path(template, PathItem::new(method, operation));
        components = components.schemas_from_iter(schemas);
    }
    for (name, description) in [
        ("app", "A token of the app, the first of which onboarding gave to it."),
        ("staff", "The server's admin token, or one whose role reaches the operation's `x-role`."),
    ] {
        let mut scheme = Http::new(HttpAuthScheme::Bearer);
        scheme.description = Some(description.to_owned());
        components = components.security_scheme(name, SecurityScheme::Http(scheme));
    }
    let (webhooks, schemas) = webhooks::webhooks();
    components = components.schemas_from_iter(schemas);
    let here =
        ServerBuilder::new().url("/").description(Some("The server that gives this document.")).build();
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Tidings")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some("Change data capture for Git. Errors are RFC 9457 problems."))
                .build(),
        )
        .servers(Some([here]))
        .paths(paths.build())
        .webhooks(Some(webhooks))
        .components(Some(components.build()))
        .build()
}

/// `post_api_repositories_id_scan`: unique, because method and template are.
pub(super) fn operation_id(method: &Method, template: &str) -> String {
    let words = template.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.fold(method.as_str().to_lowercase(), |id, word| format!("{id}_{word}"))
}

/// What every POST takes.
fn idempotency_key() -> Parameter {
    let schema = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(KEY_CHARACTERS_MAX))
        .build();
    ParameterBuilder::new()
        .name(HEADER.as_str())
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .schema(Some(schema))
        .description(Some(
            "Names this request, in visible ASCII characters. Sent again under the same key it has no second \
             effect and is answered as the first time (`idempotent-replayed: true`), for 7 days, \
             and among the last 10,000 of its owner; 409 while the first still runs, or if the key was used \
             for another request. Without a token a key has at least \
             32 random characters.",
        ))
        .build()
}

/// The answer of every route that refuses.
fn problem(description: &str) -> Response {
    let schema = Ref::from_schema_name(<ProblemBody<'_> as utoipa::ToSchema>::name());
    let content = Content::new(Some(RefOr::Ref(schema)));
    ResponseBuilder::new().description(description).content("application/problem+json", content).build()
}

fn requirement(name: &str) -> SecurityRequirement {
    SecurityRequirement::new(name, Vec::<String>::new())
}

fn schema<T: utoipa::ToSchema>() -> (String, utoipa::openapi::RefOr<utoipa::openapi::schema::Schema>) {
    (T::name().into_owned(), T::schema())
}
