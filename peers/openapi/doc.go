// Package openapi tests docs/openapi.json with a validator of others: that it is valid
// OpenAPI 3.1, and that the handlers receive and send what it says.
package openapi
