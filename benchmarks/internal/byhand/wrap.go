package byhand

import (
	"encoding/json"
	"net/http"
	"time"
)

// Wrap puts the JSON that next writes into the data of a [Response]. It holds
// everything back, and leaves out what is no JSON, streams, ranges, errors and
// header fields that describe the body.
func Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		kept := &recorder{header: w.Header()}
		next.ServeHTTP(kept, r)
		var data any
		if err := json.Unmarshal(kept.body.Bytes(), &data); err != nil {
			http.Error(w, "no JSON", http.StatusInternalServerError)
			return
		}
		status := max(kept.status, http.StatusOK)
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(NewResponse(r, start, status, "OK", data))
	})
}
