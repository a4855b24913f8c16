package usher

import "net/http"

// Invalid returns the failure for a request that is not valid: 400 with
// [CodeValidationFailed] and what is wrong with its fields.
func Invalid(fields ...Field) *Error {
	return &Error{
		Status:  http.StatusBadRequest,
		Code:    CodeValidationFailed,
		Message: "The request is not valid.",
		Fields:  fields,
	}
}
