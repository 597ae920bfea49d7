//! The server as a tower service, and as a client of itself: no socket, no TLS, no copy of a body.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use apimachinery::StatusError;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::body::LIMIT;
use crate::dispatch::{self, Asked};
use crate::options::User;
use crate::response::{self, Body};
use crate::server::ApiServer;

/// Serves one user's requests. Cheap to clone; keeps the server alive.
#[derive(Clone, Debug)]
pub struct ApiService {
    server: ApiServer,
    user: User,
}

impl ApiService {
    /// The user whose requests these are.
    pub fn user(&self) -> &User {
        &self.user
    }
}

impl<B> tower::Service<Request<B>> for ApiService
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Self { server, user } = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = match Limited::new(body, LIMIT).collect().await {
                Ok(body) => body.to_bytes(),
                Err(error) if error.is::<LengthLimitError>() => {
                    return Ok(response::error(&StatusError::too_large(&format!("limit is {LIMIT}"))));
                }
                Err(error) => return Ok(response::error(&StatusError::bad_request(format!("the body could not be read: {error}")))),
            };
            let asked = Asked {
                method: parts.method,
                path: parts.uri.path().to_owned(),
                query: parts.uri.query().map(str::to_owned),
                headers: parts.headers,
                body,
            };
            Ok(dispatch::handle(&server.inner, &user, &asked).await)
        })
    }
}

impl ApiServer {
    /// A service that answers `user`'s requests.
    pub fn service(&self, user: &User) -> ApiService {
        ApiService { server: self.clone(), user: user.clone() }
    }

    /// A client in this process that acts as `user`, with `default` as its namespace. Must be called inside a runtime.
    pub fn client(&self, user: &User) -> kube::Client {
        kube::Client::new(self.service(user), "default")
    }
}
