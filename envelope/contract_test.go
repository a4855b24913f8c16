package envelope_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
)

// kisara maps the codes of this module to the texts that Kisara documents.
var kisara = envelope.Config{
	Shape: envelope.StandardConfig{ClientIP: true, OmitCode: true, OmitDetails: true, OmitRequestID: true}.Shape(),
	Catalogue: envelope.Catalogue{Codes: map[string]envelope.Entry{
		"missing_credential":       {Message: "Unauthorized: No credentials provided"},
		"invalid_api_key":          {Message: "Invalid API key"},
		"expired_api_key":          {Message: "API key has expired"},
		"rate_limited":             {Message: "Rate limit exceeded"},
		usher.CodeValidationFailed: {Message: "Validation Error"},
		"not_owner":                {Status: http.StatusUnauthorized, Message: "User not authorized to reply"},
	}},
}

// kaie has upper-case codes of its own.
var kaie = envelope.Config{
	Shape: envelope.Data(),
	Catalogue: envelope.Catalogue{
		Codes: map[string]envelope.Entry{
			"missing_credential":       {Code: "MISSING_AUTHENTICATION"},
			"invalid_api_key":          {Code: "INVALID_API_KEY"},
			"expired_api_key":          {Code: "INVALID_API_KEY"},
			"invalid_token":            {Code: "INVALID_TOKEN"},
			"insufficient_permission":  {Code: "INSUFFICIENT_PERMISSIONS"},
			"insufficient_scope":       {Code: "SCOPE_INSUFFICIENT"},
			usher.CodeValidationFailed: {Code: "INVALID_REQUEST"},
		},
		Statuses: map[int]envelope.Entry{
			http.StatusNotFound:            {Code: "NOT_FOUND"},
			http.StatusTooManyRequests:     {Code: "RATE_LIMIT_EXCEEDED"},
			http.StatusInternalServerError: {Code: "INTERNAL_ERROR"},
		},
	},
}

// kaiko needs few entries, as its types follow from the statuses.
var kaiko = envelope.Config{
	Shape:           envelope.Typed(),
	RequestIDPrefix: "req-",
	Catalogue: envelope.Catalogue{Codes: map[string]envelope.Entry{
		"missing_credential":    {Code: "invalid_api_key"},
		"ambiguous_credentials": {Code: "invalid_api_key"},
		"revoked_api_key":       {Status: http.StatusForbidden, Code: "key_revoked"},
		"rate_limited":          {Code: "too_many_requests"},
		"too_many_concurrent":   {Code: "too_many_requests"},
	}},
}

// insitechat has one text for every 401, and elsewhere the text of each refusal.
var insitechat = envelope.Config{
	Shape: envelope.Detail(),
	Catalogue: envelope.Catalogue{Statuses: map[int]envelope.Entry{
		http.StatusUnauthorized: {Message: "Unauthorized"},
	}},
}

// kynetra documents bare successes and no error.
var kynetra = envelope.Config{Shape: envelope.Bare()}

// failing responds with err.
func failing(err *usher.Error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { usher.Fail(w, r, err) }
}

const kisaraMetadata = `"metadata":{"method":"GET","url":"/user","execution_time_ms":0,"ip":"127.0.0.1","timestamp":"T"}`

func TestContract(t *testing.T) {
	tests := []struct {
		name    string
		config  envelope.Config
		handler http.HandlerFunc
		status  int
		body    string
		header  map[string]string
	}{
		{
			name: "KS-01 Kisara: a success has status, message, data and metadata", config: kisara,
			handler: func(w http.ResponseWriter, r *http.Request) {
				envelope.For(w, r).Message("User found").Value(json.RawMessage(`{"name":"A","link_id":"l","profile_url":null}`))
			},
			status: 200,
			body:   `{"status_code":200,"message":"User found","data":{"name":"A","link_id":"l","profile_url":null},` + kisaraMetadata + `}`,
			header: map[string]string{"Content-Type": "application/json", "X-Content-Type-Options": "nosniff"},
		},
		{
			name: "KS-02 Kisara: no credential, without data", config: kisara,
			handler: failing(&usher.Error{Status: 401, Code: usher.CodeMissingCredential, Message: "The request carries no credential."}),
			status:  401,
			body:    `{"status_code":401,"message":"Unauthorized: No credentials provided",` + kisaraMetadata + `}`,
			header:  map[string]string{"Www-Authenticate": "Bearer"},
		},
		{
			name: "KS-04 Kisara: a bad key", config: kisara,
			handler: failing(&usher.Error{Status: 401, Code: "invalid_api_key", Message: "x", Challenges: []string{`APIKey realm="k"`}}),
			status:  401,
			body:    `{"status_code":401,"message":"Invalid API key",` + kisaraMetadata + `}`,
			header:  map[string]string{"Www-Authenticate": `APIKey realm="k"`},
		},
		{
			name: "KS-05 Kisara: an expired key", config: kisara,
			handler: failing(&usher.Error{Status: 401, Code: "expired_api_key"}),
			status:  401,
			body:    `{"status_code":401,"message":"API key has expired",` + kisaraMetadata + `}`,
		},
		{
			name: "KS-14 Kisara: created, with the location", config: kisara,
			handler: func(w http.ResponseWriter, r *http.Request) {
				envelope.For(w, r).Message("API key generated successfully").Created("/auth/api-keys/7", map[string]string{"api_key": "shown once"})
			},
			status: 201,
			body:   `{"status_code":201,"message":"API key generated successfully","data":{"api_key":"shown once"},` + kisaraMetadata + `}`,
			header: map[string]string{"Location": "/auth/api-keys/7"},
		},
		{
			name: "KS-15 Kisara: validation lists the fields", config: kisara,
			handler: func(w http.ResponseWriter, r *http.Request) {
				envelope.For(w, r).Invalid(usher.Field{Name: "name", Message: "'name' must have a minimum length of 1. Current length is 0."})
			},
			status: 400,
			body: `{"status_code":400,"message":"Validation Error","errors":[{"field":"name","message":"'name' must have a minimum length of 1. Current length is 0."}],` +
				kisaraMetadata + `}`,
		},
		{
			name: "KS-17 Kisara: a success without data has no data", config: kisara,
			handler: func(w http.ResponseWriter, r *http.Request) {
				envelope.For(w, r).Message("API key revoked successfully").Value(nil)
			},
			status: 200,
			body:   `{"status_code":200,"message":"API key revoked successfully",` + kisaraMetadata + `}`,
		},
		{
			name: "KS-19 Kisara: a text of the handler stays", config: kisara,
			handler: failing(&usher.Error{Status: 404, Code: "api_key_not_found", Message: "API key not found"}),
			status:  404,
			body:    `{"status_code":404,"message":"API key not found",` + kisaraMetadata + `}`,
		},
		{
			name: "KS-30 Kisara: ownership is 401, and so carries a challenge", config: kisara,
			handler: failing(&usher.Error{Status: 403, Code: "not_owner"}),
			status:  401,
			body:    `{"status_code":401,"message":"User not authorized to reply",` + kisaraMetadata + `}`,
			header:  map[string]string{"Www-Authenticate": "Bearer"},
		},
		{
			name: "KS-32 Kisara: no such route", config: kisara,
			handler: must(kisara).NotFound,
			status:  404,
			body:    `{"status_code":404,"message":"Not Found",` + kisaraMetadata + `}`,
		},
		{
			name: "KS-33 Kisara: too many requests, exactly, whatever the limiter's message is", config: kisara,
			handler: failing(&usher.Error{
				Status: 429, Code: "rate_limited", Message: "Rate limit exceeded.", RetryAfter: 1500 * time.Millisecond,
				Details: map[string]any{"violated-policies": []string{"user"}},
			}),
			status: 429,
			body:   `{"status_code":429,"message":"Rate limit exceeded",` + kisaraMetadata + `}`,
			header: map[string]string{"Retry-After": "2"},
		},
		{
			name: "KS-37 Kisara: a failure without a code shows no cause", config: kisara,
			handler: func(w http.ResponseWriter, r *http.Request) { usher.Fail(w, r, errors.New("pq: relation users")) },
			status:  500,
			body:    `{"status_code":500,"message":"Internal Server Error",` + kisaraMetadata + `}`,
		},
		{
			name: "KE-01 Kaie: a list has its pagination", config: kaie,
			handler: func(w http.ResponseWriter, r *http.Request) {
				envelope.For(w, r).List([]int{1, 2}, usher.Page{Number: 1, Limit: 20, Total: 41})
			},
			status: 200,
			body:   `{"data":[1,2],"pagination":{"page":1,"limit":20,"total":41,"pages":3}}`,
			header: map[string]string{"X-Total-Count": ""},
		},
		{
			name: "KE-01 Kaie: an empty list is not null", config: kaie,
			handler: func(w http.ResponseWriter, r *http.Request) {
				envelope.For(w, r).List([]int(nil), usher.Page{Number: 1, Limit: 20})
			},
			status: 200,
			body:   `{"data":[],"pagination":{"page":1,"limit":20,"total":0,"pages":0}}`,
		},
		{
			name: "Kynetra: a bare list has its total in the header", config: kynetra,
			handler: func(w http.ResponseWriter, r *http.Request) {
				envelope.For(w, r).List([]int{1, 2}, usher.Page{Number: 1, Limit: 2, Total: 41})
			},
			status: 200,
			body:   `[1,2]`,
			header: map[string]string{"X-Total-Count": "41"},
		},
		{
			name: "KE-02 Kaie: no credential", config: kaie,
			handler: failing(&usher.Error{Status: 401, Code: usher.CodeMissingCredential, Message: "The request carries no credential."}),
			status:  401,
			body:    `{"error":{"code":"MISSING_AUTHENTICATION","message":"The request carries no credential."}}`,
		},
		{
			name: "KE-05 Kaie: the key does not permit it", config: kaie,
			handler: failing(&usher.Error{Status: 403, Code: usher.CodeInsufficientPermission, Message: "No."}),
			status:  403,
			body:    `{"error":{"code":"INSUFFICIENT_PERMISSIONS","message":"No."}}`,
		},
		{
			name: "KE-07 Kaie: an invalid body has details", config: kaie,
			handler: failing(&usher.Error{
				Status: 400, Code: usher.CodeValidationFailed, Message: "Invalid request", Details: "Workflow name is required",
			}),
			status: 400,
			body:   `{"error":{"code":"INVALID_REQUEST","message":"Invalid request","details":"Workflow name is required"}}`,
		},
		{
			name: "KE-09 Kaie: created", config: kaie,
			handler: func(w http.ResponseWriter, r *http.Request) {
				envelope.For(w, r).Created("", map[string]string{"id": "w1"})
			},
			status: 201,
			body:   `{"data":{"id":"w1"}}`,
		},
		{
			name: "KE-10 Kaie: too many requests have the time to wait", config: kaie,
			handler: failing(&usher.Error{Status: 429, Code: "rate_limited", Message: "Rate limit exceeded.", RetryAfter: 59*time.Second + 1}),
			status:  429,
			body:    `{"error":{"code":"RATE_LIMIT_EXCEEDED","message":"Rate limit exceeded.","retry_after":60},"retry_after":60}`,
			header:  map[string]string{"Retry-After": "60"},
		},
		{
			name: "KY-01 Kynetra: a success is bare", config: kynetra,
			handler: func(w http.ResponseWriter, r *http.Request) {
				envelope.For(w, r).Created("", json.RawMessage(`{"userId":"u","email":"a@example.com"}`))
			},
			status: 201,
			body:   `{"userId":"u","email":"a@example.com"}`,
		},
		{
			name: "KY-03 Kynetra: an error is flat", config: kynetra,
			handler: failing(&usher.Error{Status: 401, Code: "invalid_api_key", Message: "The API key is not valid."}),
			status:  401,
			body:    `{"code":"invalid_api_key","message":"The API key is not valid."}`,
		},
		{
			name: "KK-01 Kaiko: a success is bare", config: kaiko,
			handler: func(w http.ResponseWriter, r *http.Request) {
				envelope.For(w, r).Value(json.RawMessage(`{"object":"emotions.analysis"}`))
			},
			status: 200,
			body:   `{"object":"emotions.analysis"}`,
		},
		{
			name: "KK-03 Kaiko: no key is a wrong key", config: kaiko,
			handler: failing(&usher.Error{Status: 401, Code: usher.CodeMissingCredential, Message: "M"}),
			status:  401,
			body:    `{"error":{"type":"authentication_error","code":"invalid_api_key","message":"M","request_id":"req-7f65ab21d1"}}`,
		},
		{
			name: "KK-05 Kaiko: a revoked key is forbidden", config: kaiko,
			handler: failing(&usher.Error{Status: 401, Code: "revoked_api_key", Message: "M"}),
			status:  403,
			body:    `{"error":{"type":"forbidden_error","code":"key_revoked","message":"M","request_id":"req-7f65ab21d1"}}`,
		},
		{
			name: "KK-07 Kaiko: the parameter at fault", config: kaiko,
			handler: failing(&usher.Error{Status: 400, Code: "missing_field", Message: "The 'messages' field is required", Param: "messages"}),
			status:  400,
			body:    `{"error":{"type":"invalid_request_error","code":"missing_field","message":"The 'messages' field is required","param":"messages","request_id":"req-7f65ab21d1"}}`,
		},
		{
			name: "KK-12 Kaiko: unprocessable is an invalid request", config: kaiko,
			handler: failing(&usher.Error{Status: 422, Code: "invalid_role", Message: "M"}),
			status:  422,
			body:    `{"error":{"type":"invalid_request_error","code":"invalid_role","message":"M","request_id":"req-7f65ab21d1"}}`,
		},
		{
			name: "KK-13 Kaiko: too many requests", config: kaiko,
			handler: failing(&usher.Error{Status: 429, Code: "rate_limited", Message: "M", RetryAfter: time.Minute, Details: map[string]any{"violated-policies": []string{"p"}}}),
			status:  429,
			body:    `{"error":{"type":"rate_limit_error","code":"too_many_requests","message":"M","request_id":"req-7f65ab21d1"}}`,
			header:  map[string]string{"Retry-After": "60"},
		},
		{
			name: "KK-18 Kaiko: an unexpected failure", config: kaiko,
			handler: func(http.ResponseWriter, *http.Request) { panic("sk_live_secret") },
			status:  500,
			body:    `{"error":{"type":"server_error","code":"internal","message":"Internal Server Error","request_id":"req-7f65ab21d1"}}`,
		},
		{
			name: "IC-02 InsiteChat: every 401 is the same", config: insitechat,
			handler: failing(&usher.Error{Status: 401, Code: "invalid_api_key", Message: "The API key is not valid."}),
			status:  401,
			body:    `{"detail":"Unauthorized"}`,
		},
		{
			name: "IC-08 InsiteChat: the limiter's own text", config: insitechat,
			handler: failing(&usher.Error{Status: 429, Code: "rate_limited", Message: "API rate limit exceeded. Max 60 requests per minute."}),
			status:  429,
			body:    `{"detail":"API rate limit exceeded. Max 60 requests per minute."}`,
			header:  map[string]string{"Retry-After": "", "Content-Type": "application/json"},
		},
		{
			name: "IC-11 InsiteChat: another limiter's own text", config: insitechat,
			handler: failing(&usher.Error{Status: 429, Code: "rate_limited", Message: "Monthly message limit reached."}),
			status:  429,
			body:    `{"detail":"Monthly message limit reached."}`,
		},
		{
			name: "IC-07 InsiteChat: faulty fields are one text", config: insitechat,
			handler: func(w http.ResponseWriter, r *http.Request) {
				envelope.For(w, r).Invalid(usher.Field{Name: "message", Message: "is required"}, usher.Field{Name: "session_id", Message: "is too long"})
			},
			status: 400,
			body:   `{"detail":"The request is not valid. message: is required; session_id: is too long"}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.config.RequestID = fromHeader
			tt.config.OnError = func(context.Context, error) {}
			tt.config.OnPanic = func(*http.Request, any, []byte) {}
			got := get(t, start(t, must(tt.config).Wrap(tt.handler)), "/user", "X-Request-Id: req-7f65ab21d1")
			wantStatus(t, got, tt.status)
			wantBody(t, got, tt.body)
			for name, value := range tt.header {
				wantHeader(t, got, name, value)
			}
		})
	}
}

func TestAGeneratedRequestIDHasThePrefix(t *testing.T) {
	s := start(t, must(kaiko).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, _ *http.Request) {})))
	made := regexp.MustCompile(`^req-[0-9a-z]{16}$`)
	if id := get(t, s, "/").Header.Get("X-Request-Id"); !made.MatchString(id) {
		t.Errorf("request ID %q", id)
	}
}

func TestProblem(t *testing.T) {
	const prefix = "https://api.example.com/problems/"
	quota := envelope.Catalogue{Codes: map[string]envelope.Entry{
		"rate_limited": {Type: "https://iana.org/assignments/http-problem-types#quota-exceeded"},
	}}
	limited := &usher.Error{
		Status: 429, Code: "rate_limited", Message: "Slow down.",
		Details: map[string]any{"violated-policies": []string{"burst", "daily"}, "status": 200, "balance": 30},
	}
	tests := []struct {
		name   string
		config envelope.Config
		err    *usher.Error
		body   string
	}{
		{
			"the type is the prefix and the code, details are extension members, none twice",
			envelope.Config{Shape: envelope.Problem(prefix)}, limited,
			`{"type":"https://api.example.com/problems/rate_limited","title":"Too Many Requests","status":429,"detail":"Slow down.","code":"rate_limited","balance":30,"violated-policies":["burst","daily"]}`,
		},
		{
			"a registered type of the catalogue goes first",
			envelope.Config{Shape: envelope.Problem(prefix), Catalogue: quota}, limited,
			`{"type":"https://iana.org/assignments/http-problem-types#quota-exceeded","title":"Too Many Requests","status":429,"detail":"Slow down.","code":"rate_limited","balance":30,"violated-policies":["burst","daily"]}`,
		},
		{
			"the type of the error, rather than the prefix and the code",
			envelope.Config{Shape: envelope.Problem(prefix)}, &usher.Error{Status: 429, Code: "rate_limited", Type: "https://example.com/quota"},
			`{"type":"https://example.com/quota","title":"Too Many Requests","status":429,"code":"rate_limited"}`,
		},
		{
			"the type of the catalogue, rather than that of the error",
			envelope.Config{Shape: envelope.Problem(prefix), Catalogue: envelope.Catalogue{Codes: map[string]envelope.Entry{
				"rate_limited": {Type: "slow-down"},
			}}}, &usher.Error{Status: 429, Code: "rate_limited", Type: "https://example.com/quota"},
			`{"type":"https://api.example.com/problems/slow-down","title":"Too Many Requests","status":429,"code":"rate_limited"}`,
		},
		{
			"without a prefix about:blank, and no detail that repeats the title",
			envelope.Config{Shape: envelope.Problem("")}, &usher.Error{Status: 404},
			`{"type":"about:blank","title":"Not Found","status":404,"code":"not_found"}`,
		},
		{
			"fields and other details have members of their own",
			envelope.Config{Shape: envelope.Problem("")},
			&usher.Error{Status: 422, Code: "c", Message: "m", Param: "p", Fields: []usher.Field{{Name: "a", Message: "b"}}, Details: []int{1}},
			`{"type":"about:blank","title":"Unprocessable Entity","status":422,"detail":"m","code":"c","param":"p","errors":[{"field":"a","message":"b"}],"details":[1]}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := get(t, start(t, must(tt.config).Wrap(failing(tt.err))), "/")
			wantStatus(t, got, tt.err.Status)
			wantHeader(t, got, "Content-Type", "application/problem+json")
			wantBody(t, got, tt.body)
		})
	}
}

// The default of the root package and Problem without a prefix have one format.
func TestProblemIsWhatUsherWritesByItself(t *testing.T) {
	err := &usher.Error{
		Status: 403, Code: "c", Type: "https://example.com/t", Message: "m", Param: "p", Fields: []usher.Field{{Name: "a", Message: "b"}},
		Details: map[string]any{"violated-policies": []string{"x", "y"}, "empty": []string{}, "nil": nil, "code": "other", "balance": 30},
	}
	alone := get(t, start(t, failing(err)), "/")
	shaped := get(t, start(t, must(envelope.Config{Shape: envelope.Problem("")}).Wrap(failing(err))), "/")
	wantBody(t, shaped, alone.body)
	wantHeader(t, shaped, "Content-Type", alone.Header.Get("Content-Type"))
}
