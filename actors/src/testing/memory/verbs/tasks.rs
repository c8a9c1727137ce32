//! This store has no tasks, as that of a server to which nobody gives any.

use async_trait::async_trait;

use crate::{
    model::task::MoveRefusal,
    ports::{
        Claim, ClaimRequest, ClaimStore, ClaimedTask, QueueWork, StoreError, TaskNews, TaskWord, Woken,
        WordRefusal, Worded, WorkWords,
    },
    testing::memory::MemoryStore,
};

#[async_trait]
impl ClaimStore for MemoryStore {
    async fn claim_tasks(&self, requests: Vec<ClaimRequest>) -> Result<Vec<Claim>, StoreError> {
        self.meet("claim_tasks").await?;
        Ok(requests.iter().map(|_| Claim::default()).collect())
    }

    async fn payloads(&self, _tasks: Vec<ClaimedTask>) -> Result<Vec<ClaimedTask>, StoreError> {
        Ok(Vec::new())
    }

    async fn move_tasks(&self, words: Vec<TaskWord>) -> Result<Vec<Result<Worded, WordRefusal>>, StoreError> {
        Ok(words.iter().map(|_| Err(WordRefusal::Move(MoveRefusal::NotFound))).collect())
    }

    async fn work_for(&self, words: &WorkWords) -> Result<Vec<QueueWork>, StoreError> {
        self.meet("work_for").await?;
        let work = self.state().work.clone();
        Ok(work.into_iter().filter(|work| words.has(&work.app.id, &work.queue)).collect())
    }

    async fn wake_tasks(&self) -> Result<Woken, StoreError> {
        self.meet("wake_tasks").await?;
        Ok(Woken::default())
    }

    async fn forget_tasks(&self, _limit: u64) -> Result<u64, StoreError> {
        Ok(0)
    }

    async fn task_news(&self) -> TaskNews {
        std::future::pending().await
    }
}
