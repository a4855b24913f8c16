package usher_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/usher-go/usher"
)

func ExampleInvalid() {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodPost, "/orders", nil)
	usher.Fail(w, r, usher.Invalid(usher.Field{Name: "quantity", Message: "'quantity' must be above 0."}))
	fmt.Println(w.Code)
	fmt.Println(w.Body)
	// Output:
	// 400
	// {"type":"about:blank","title":"Bad Request","status":400,"detail":"The request is not valid.","code":"validation_failed","errors":[{"field":"quantity","message":"'quantity' must be above 0."}]}
}
