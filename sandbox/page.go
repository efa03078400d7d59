package sandbox

// Page is one page of a list.
type Page[T any] struct {
	Data       []T        `json:"data"`
	Pagination Pagination `json:"pagination"`
}

// Pagination says where a page lies in its list.
type Pagination struct {
	Page       int `json:"page"` // from 1
	PerPage    int `json:"per_page"`
	Total      int `json:"total"`
	TotalPages int `json:"total_pages"`
}

// NewPage is the page of a list of total rows that holds data.
func NewPage[T any](data []T, page, perPage, total int) Page[T] {
	if data == nil {
		data = []T{}
	}
	return Page[T]{data, Pagination{page, perPage, total, (total + perPage - 1) / perPage}}
}

// ErrorAnswer is the body of every answer that is an error.
type ErrorAnswer struct {
	Error ErrorBody `json:"error"`
}

// ErrorBody is an Error as it travels.
type ErrorBody struct {
	Code      Code     `json:"code"`
	Message   string   `json:"message"`
	RequestID string   `json:"request_id"`
	Details   []Detail `json:"details,omitempty"`
}
