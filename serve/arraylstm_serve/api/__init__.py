"""The contract as data: requests, answers, refusals, and the OpenAPI document that derives from them."""
