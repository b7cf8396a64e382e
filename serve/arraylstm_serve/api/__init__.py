"""The API's contract: requests, answers, problems, and the OpenAPI document made from them."""
