package sandbox

// Role is what a credential may do.
type Role string

// The roles, each including the ones after it: an operator acts in every namespace, the others in one.
const (
	Operator Role = "operator"
	Admin    Role = "admin" // manages keys of its namespace
	Write    Role = "write" // creates, runs, deletes
	Read     Role = "read"
)

// Includes says whether r may do what other may.
func (r Role) Includes(other Role) bool {
	rank := map[Role]int{Operator: 4, Admin: 3, Write: 2, Read: 1}
	return rank[r] > 0 && rank[r] >= rank[other]
}

// KeyRequest is the body of POST /auth/v1/api_keys.
type KeyRequest struct {
	Name      *string `json:"name,omitempty" required:"true" doc:"1 to 64 letters, digits, dots, dashes and underscores."`
	Namespace *string `json:"namespace,omitempty" doc:"Required but for role operator."`
	Role      *string `json:"role,omitempty" required:"true" enum:"operator,admin,write,read"`
	RateLimit *int    `json:"rate_limit,omitempty" minimum:"0" maximum:"1000000" doc:"Calls a minute; the server's unless given, 0 switches it off."`
}

// Key is an API key; it is used as Authorization: API-Key name$secret.
type Key struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Secret    string `json:"secret,omitempty"` // in the answer of its making only
	Namespace string `json:"namespace"`
	Role      Role   `json:"role"`
	RateLimit *int   `json:"rate_limit"`
	CreatedAt Time   `json:"created_at"`
}

// TokenRequest is the body of POST /auth/v1/pat.
type TokenRequest struct {
	Name          *string  `json:"name,omitempty" required:"true" doc:"1 to 64 letters, digits, dots, dashes and underscores."`
	ExpiresInDays *float64 `json:"expires_in_days,omitempty" required:"true" maximum:"3650" doc:"More than 0; may be fractional."`
}

// Token is a personal access token, with its maker's namespace and role; it is used as Authorization: Bearer token.
type Token struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Token     string `json:"token,omitempty"` // in the answer of its making only
	Namespace string `json:"namespace"`
	Role      Role   `json:"role"`
	CreatedAt Time   `json:"created_at"`
	ExpiresAt Time   `json:"expires_at"`
}
