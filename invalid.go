package usher

import "net/http"

// Invalid returns the error for an invalid request: 400 with [CodeValidationFailed] and
// the faults of its fields.
func Invalid(fields ...Field) *Error {
	return &Error{
		Status:  http.StatusBadRequest,
		Code:    CodeValidationFailed,
		Message: "The request is not valid.",
		Fields:  fields,
	}
}
