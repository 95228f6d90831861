//! Reading a request's body, up to the limits for its size and time.

use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::HeaderMap;
use hyper::body::Body;
use hyper::header::CONTENT_LENGTH;
use tokio::time::timeout;

use super::Limits;
use super::problem::ApiError;

pub(super) async fn read<B>(body: B, headers: &HeaderMap, limits: Limits) -> Result<Bytes, ApiError>
where
    B: Body<Data = Bytes> + Send,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let too_large = ApiError::BodyTooLarge { limit: limits.body_bytes };
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: u64| length > limits.body_bytes as u64) {
        return Err(too_large);
    }
    let body = std::pin::pin!(Limited::new(body, limits.body_bytes));
    match timeout(limits.body_timeout, body.collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large),
        Ok(Err(_)) => Err(ApiError::Malformed("the body did not arrive whole")),
        Err(_) => Err(ApiError::BodyTooSlow),
    }
}
