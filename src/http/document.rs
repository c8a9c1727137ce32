//! The OpenAPI document, generated from the routes themselves, and the requests that the server sends to
//! apps.

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
    for Route { template, method, access, mut operation, schemas, of_workers, .. } in routes {
        operation.security = match access {
            Access::Public | Access::Hook(_) | Access::AppHook(_) => None,
            Access::App(_) | Access::Holder(_) => Some(vec![requirement("app")]),
            Access::Anybody => Some(vec![requirement("app"), requirement("staff")]),
            Access::Staff(_) => Some(vec![requirement("staff")]),
            Access::Onboarding => Some(vec![SecurityRequirement::default(), requirement("staff")]),
        };
        let mut extensions = ExtensionsBuilder::new();
        if let Some(permission) = access.permission() {
            extensions = extensions.add("x-permission", permission.as_str());
        }
        if let Some(role) = access.role() {
            extensions = extensions.add("x-role", role.as_str());
        }
        operation.extensions.get_or_insert_default().merge(extensions.build());
        if method == Method::POST && !access.is_of_hooks() && of_workers.is_none() {
            operation.parameters.get_or_insert_default().push(RefOr::T(idempotency_key()));
        }
        operation.operation_id = Some(operation_id(&method, &template));
        for (statuses, description) in
            [("4XX", "The request is refused; the body names the reason."), ("5XX", "The server failed.")]
        {
            operation.responses.responses.insert(statuses.to_owned(), RefOr::T(problem(description)));
        }
        let method = match method {
            Method::POST => HttpMethod::Post,
            Method::PUT => HttpMethod::Put,
            Method::PATCH => HttpMethod::Patch,
            Method::DELETE => HttpMethod::Delete,
            _ => HttpMethod::Get,
        };
        paths = paths.path(template, PathItem::new(method, operation));
        components = components.schemas_from_iter(schemas);
    }
    for (name, scheme) in security_schemes() {
        components = components.security_scheme(name, scheme);
    }
    let (webhooks, schemas) = webhooks::webhooks();
    components = components.schemas_from_iter(schemas);
    let here =
        ServerBuilder::new().url("/").description(Some("The server that serves this document.")).build();
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

/// The ways in which callers authenticate, by the names that operations use.
fn security_schemes() -> [(&'static str, SecurityScheme); 2] {
    [
        (
            "app",
            "A token of the app; the registration of the app makes the first one. A narrowed token needs \
             the permission `x-permission` of the operation.",
        ),
        (
            "staff",
            "The server's admin token, or a staff token with the permission `x-permission` of the \
             operation. The built-in roles from `x-role` up have this permission.",
        ),
    ]
    .map(|(name, description)| {
        let mut scheme = Http::new(HttpAuthScheme::Bearer);
        scheme.description = Some(description.to_owned());
        (name, SecurityScheme::Http(scheme))
    })
}

/// `post_api_repositories_id_scan`: unique, because method and template are.
pub(super) fn operation_id(method: &Method, template: &str) -> String {
    let words = template.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let id = words.fold(method.as_str().to_lowercase(), |id, word| format!("{id}_{word}"));
    if template.ends_with('/') { format!("{id}_index") } else { id }
}

/// The header that every POST accepts.
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
            "Key of this request, in visible ASCII characters. A repeated request with the same key has no \
             second effect and gets the first answer again (`idempotent-replayed: true`), for 7 days and \
             among the last 10,000 keys of its owner. 409 while the first request runs, or if the key was \
             used for another request. A key of a request without a token must have at least 32 random \
             characters.",
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
